"""Rules of models as tables."""

from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from yolopool.cli.access.tenants import in_words
from yolopool.cli.tables import plain_table
from yolopool.client.rules.rule_records import ModelRule


def gates(rules: Iterable[ModelRule]) -> Table:
    table = plain_table("MODEL", "MAP50-95 ", "MAP50 ", "DATA")
    for rule in rules:
        if rule.gate is not None:
            least = (rule.gate.min_map50_95, rule.gate.min_map50)
            words = (f"{value:g}" if value else "-" for value in least)
            table.add_row(rule.pattern, *words, f"sha256 {rule.gate.data[:12]}")
    return table


def store(rules: Iterable[ModelRule]) -> Table:
    table = plain_table("MODELS", "KEEP ", "USED ", "LIMIT ")
    for rule in rules:
        table.add_row(
            escape(rule.pattern),
            str(rule.keep_versions) if rule.keep_versions else "all",
            in_words(rule.used_bytes) if rule.used_bytes else "0",
            in_words(rule.store_bytes),
        )
    return table
