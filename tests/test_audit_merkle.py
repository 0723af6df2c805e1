"""Trees and proofs of RFC 9162: against published vectors, and against a second implementation."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jit_approval.audit import merkle
from tests import audit_checker

# The inputs and roots of the Certificate Transparency reference implementation
# (google/certificate-transparency-go, merkletree/merkle_verifier_test.go), which Trillian and
# transparency-dev/merkle carry too. RFC 9162 hashes leaves and nodes as RFC 6962 does.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = [  # index, size, proof
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
CONSISTENCY = [  # first, second, proof
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]


def grown(leaves: list[bytes]) -> tuple[merkle.Frontier, merkle.Lookup]:
    tree, kept = merkle.Frontier(), {}
    for index, data in enumerate(leaves):
        for level, found in enumerate(tree.append(merkle.leaf_hash(data))):
            kept[level, index >> level] = found
    return tree, lambda level, position: kept[level, position]


def numbered(size: int) -> list[bytes]:
    return [b"%d" % number for number in range(size)]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_the_published_vectors(size: int) -> None:
    tree, _ = grown(LEAVES[:size])
    assert tree.root().hex() == ROOTS[size] == audit_checker.mth(LEAVES[:size]).hex()


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_inclusion_proofs_are_those_of_the_published_vectors(
    index: int, size: int, proof: list[str]
) -> None:
    _, lookup = grown(LEAVES)
    assert [step.hex() for step in merkle.inclusion_proof(index, size, lookup)] == proof
    steps = [bytes.fromhex(step) for step in proof]
    leaf = merkle.leaf_hash(LEAVES[index])
    merkle.check_inclusion(leaf, index, size, steps, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("first", "second", "proof"), CONSISTENCY)
def test_consistency_proofs_are_those_of_the_published_vectors(
    first: int, second: int, proof: list[str]
) -> None:
    _, lookup = grown(LEAVES)
    assert [step.hex() for step in merkle.consistency_proof(first, second, lookup)] == proof
    steps = [bytes.fromhex(step) for step in proof]
    old, new = bytes.fromhex(ROOTS[first]), bytes.fromhex(ROOTS[second])
    merkle.check_consistency(first, second, old, new, steps)


def test_every_proof_of_every_small_tree_is_as_the_definition_makes_it() -> None:
    for size in range(1, 41):
        leaves = numbered(size)
        tree, lookup = grown(leaves)
        root = tree.root()
        assert root == audit_checker.mth(leaves)
        for index in range(size):
            steps = merkle.inclusion_proof(index, size, lookup)
            leaf = merkle.leaf_hash(leaves[index])
            assert steps == audit_checker.path(index, leaves)
            assert audit_checker.root_of(leaf, index, size, steps) == root
            merkle.check_inclusion(leaf, index, size, steps, root)
        for first in range(1, size + 1):
            steps = merkle.consistency_proof(first, size, lookup)
            assert steps == audit_checker.proof(first, leaves)
            merkle.check_consistency(first, size, audit_checker.mth(leaves[:first]), root, steps)


@given(st.integers(1, 500), st.data())
def test_a_tree_goes_on_from_where_it_was(size: int, data: st.DataObject) -> None:
    leaves = numbered(size)
    _, lookup = grown(leaves)
    begun = data.draw(st.integers(0, size))
    tree = merkle.frontier(begun, lookup)
    assert tree.root() == audit_checker.mth(leaves[:begun])
    for leaf in leaves[begun:]:
        tree.append(merkle.leaf_hash(leaf))
    assert (tree.size, tree.root()) == (size, audit_checker.mth(leaves))


def distorted(steps: list[bytes], random_: random.Random) -> list[list[bytes]]:
    """Everything that is nearly this proof."""
    wrong = [[*steps, bytes(32)], [bytes(32), *steps]]
    for place in range(len(steps)):
        flipped = bytearray(steps[place])
        flipped[random_.randrange(32)] ^= 1 << random_.randrange(8)
        wrong.append([*steps[:place], bytes(flipped), *steps[place + 1 :]])
        wrong.append([*steps[:place], *steps[place + 1 :]])
        wrong.append([*steps[: place + 1], *steps[place:]])
    if steps != steps[::-1]:
        wrong.append(steps[::-1])
    return wrong


def refuses(check: Callable[..., None], *arguments: object) -> bool:
    try:
        check(*arguments)
    except merkle.ProofError:
        return True
    return False


def test_a_proof_that_was_changed_in_any_way_is_refused() -> None:
    random_ = random.Random(9162)
    for size in range(1, 34):
        leaves = numbered(size)
        tree, lookup = grown(leaves)
        root = tree.root()
        for index in range(size):
            leaf, steps = (
                merkle.leaf_hash(leaves[index]),
                merkle.inclusion_proof(index, size, lookup),
            )
            for wrong in distorted(steps, random_):
                assert refuses(merkle.check_inclusion, leaf, index, size, wrong, root)
            for place in {*range(-1, size + 2)} - {index}:
                assert refuses(merkle.check_inclusion, leaf, place, size, steps, root)
            assert refuses(merkle.check_inclusion, bytes(32), index, size, steps, root)
            assert refuses(merkle.check_inclusion, leaf, index, size, steps, bytes(32))
        for first in range(1, size):
            old, steps = (
                audit_checker.mth(leaves[:first]),
                merkle.consistency_proof(first, size, lookup),
            )
            for wrong in distorted(steps, random_):
                assert refuses(merkle.check_consistency, first, size, old, root, wrong)
            assert refuses(merkle.check_consistency, first, size, root, old, steps)
            assert refuses(merkle.check_consistency, first, size, bytes(32), root, steps)
            assert refuses(merkle.check_consistency, first, size, old, bytes(32), steps)


def test_a_tree_is_no_beginning_of_a_smaller_one_nor_of_another_of_its_size() -> None:
    a, b = audit_checker.mth(numbered(3)), audit_checker.mth(numbered(4))
    assert refuses(merkle.check_consistency, 4, 3, b, a, [])
    assert refuses(merkle.check_consistency, 3, 3, a, b, [])
    assert refuses(merkle.check_consistency, 3, 3, a, a, [a])
    assert refuses(merkle.check_consistency, 0, 3, a, a, [])
    merkle.check_consistency(0, 3, merkle.EMPTY_ROOT, a, [])
    merkle.check_consistency(3, 3, a, a, [])


@pytest.mark.parametrize(("first", "second"), [(0, 3), (4, 3), (-1, 3)])
def test_there_is_no_consistency_proof_from_nothing_or_backwards(first: int, second: int) -> None:
    with pytest.raises(ValueError, match="no proof"):
        merkle.consistency_ranges(first, second)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_there_is_no_proof_for_a_leaf_outside_of_the_tree(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        merkle.inclusion_ranges(index, size)


def test_a_tree_does_not_go_on_from_hashes_that_are_not_its_own() -> None:
    with pytest.raises(ValueError, match="2 complete subtrees"):
        merkle.Frontier(3, [bytes(32)])


def test_a_tree_grows_in_memory_that_does_not() -> None:
    tree = merkle.Frontier()
    tree.append(bytes(32))
    tracemalloc.start()
    try:
        for _ in range(20_000):
            tree.append(bytes(32))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000
