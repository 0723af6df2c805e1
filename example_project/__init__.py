"""A small back office whose dangerous calls wait for approval: a project to copy from."""
