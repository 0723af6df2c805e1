"""A grant is spent once, also where only threads are at hand: on every database."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from tests.races import runners
from tests.races.conftest import approve_all

pytestmark = pytest.mark.django_db(transaction=True)

THREADS, GRANTS = 8, 20


def test_of_eight_threads_on_each_grant_one_runs_the_call(erin_token, runs_file, bob) -> None:
    approve_all(erin_token, GRANTS, by=bob)
    barrier = threading.Barrier(THREADS, timeout=60)

    def consume() -> Counter[str]:
        try:
            return runners.consume(barrier, str(runs_file), erin_token, GRANTS)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(THREADS) as pool:
        answers = [future.result() for future in [pool.submit(consume) for _ in range(THREADS)]]
    total = sum(answers, Counter())
    assert sorted(map(int, runs_file.read_text().split())) == list(range(GRANTS)), total
    assert total["201"] == GRANTS
