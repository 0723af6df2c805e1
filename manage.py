#!/usr/bin/env python
"""Django's command line for the example project; start with `python manage.py demo`."""

import os
import sys


def main() -> None:
    """Run one management command with the example project's settings, unless others are named."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
