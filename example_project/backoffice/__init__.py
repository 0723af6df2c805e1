"""The back office itself: customers, their data, money and machines."""
