"""The trail off the box: to a webhook, to a logger, as it is sealed and, where wanted, before. See docs/audit.md."""
