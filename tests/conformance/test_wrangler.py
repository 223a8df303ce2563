"""wrangler, command by command; `wrangler_stories.py` has what is done with it."""

from __future__ import annotations


def test_namespace_commands(wrangler_story):
    wrangler_story("namespace_commands")


def test_key_commands(wrangler_story):
    wrangler_story("key_commands")


def test_bulk_commands(wrangler_story):
    wrangler_story("bulk_commands")


def test_account_is_found_by_asking(wrangler_story):
    wrangler_story("account_is_found_by_asking")


def test_unknown_token_is_refused(wrangler_story):
    wrangler_story("unknown_token_is_refused")
