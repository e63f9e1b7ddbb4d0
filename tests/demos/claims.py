"""What a sentence beside results may say: words that need a status, and where they are wrong.

A network is *optimal* where its status says CONVERGED. A path is *exact* where its Hamiltonian is
constant. A *strict local minimum* is one where the certificate's verdict says that it is proved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

CONVERGED, TRAINED = "CONVERGED", "TRAINED"
#: "Optimal control" is the name of the method; any other optimal or optimum is a claim.
OPTIMAL = re.compile(r"\boptimal\b(?! control)|\boptim(?:um|a)\b", re.IGNORECASE)
#: Words that take the claim back in the same sentence.
DENIED = re.compile(r"not converged|none of|\bno fit\b|not (?:called )?optimal", re.IGNORECASE)
STRICT, PROVED = "strict local minim", "(proved)"
RANK, COSTATE = "−2H/L̃", "costate"
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-ZÀ-Ÿ∂−‖*\[])")


def sentences(text: str) -> list[str]:
    """The sentences of a text, line breaks undone."""
    return SENTENCE.split(" ".join(text.split()))


def rows(record: Any) -> Iterator[dict[str, Any]]:
    """Every row of a record that says how a network or a path ended."""
    if isinstance(record, dict):
        if isinstance(record.get("status"), str):
            yield record
        for value in record.values():
            yield from rows(value)
    elif isinstance(record, list):
        for value in record:
            yield from rows(value)


def unconverged(record: Any) -> list[str]:
    """Statuses of the solvers' rows that did not end at a stationary point of the problem."""
    statuses = [row["status"].upper() for row in rows(record)]
    return [status for status in statuses if status not in (CONVERGED, TRAINED)]


def called_optimal_wrongly(text: list[str], record: Any) -> list[str]:
    """Sentences that call a network optimal where some of the record did not converge."""
    if not unconverged(record):
        return []
    return [s for s in text if OPTIMAL.search(s) and not DENIED.search(s)]


def called_minimum_wrongly(text: list[str], record: Any) -> list[str]:
    """Sentences that name a strict local minimum without a proof that is counted in the record.

    A sentence may quote a verdict, whole or with its count; a number in front of it has to be that
    of the record.
    """
    verdicts = [row["second_order"] for row in rows(record) if row.get("second_order")]
    wrong = []
    for sentence in (s for s in text if STRICT in s):
        quoted = re.findall(r"(\d+) “([^”]*)”", sentence)
        counted = all(int(n) == sum(v.split(":")[0] == said for v in verdicts)
                      for n, said in quoted)
        whole = any(verdict in sentence for verdict in verdicts)
        if not (counted and (quoted or whole) and PROVED in sentence):
            wrong.append(sentence)
    return wrong


def rank_without_its_estimate(text: list[str]) -> list[str]:
    """Sentences with a number of −2H/L̃ that do not say whether the costate went into it."""
    return [s for s in text if RANK in s and re.search(r"\d", s.split(RANK, 1)[1])
            and COSTATE not in s]
