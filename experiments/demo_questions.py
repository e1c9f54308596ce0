"""How often the search of the demonstration finds the right thing: 24 questions, one table.

    python experiments/demo_questions.py [MODEL …]

A question is answered if a name that begins with one of those beside it is among the first 1, 3, 5. With and without
the instruction, vectors as they are and standardised. The first five are the demonstration's own.
"""

from __future__ import annotations

import sys

from unmask import Encoder
from unmask.bulk.search import QUERY_INSTRUCTION, TextSearch
from unmask.corpora import demo_entries
from unmask.hub.catalogue import DEFAULT

QUESTIONS = {
    "How do I open a page in the user's browser?": ("webbrowser",),
    "How do I compare two texts and show the differences?": ("difflib",),
    "How can I ask the user for a password without showing it?": ("getpass",),
    "How do I compute the median of some numbers?": ("statistics.median",),
    "How do I wait for several coroutines to finish?": ("asyncio.wait", "asyncio.gather", "asyncio.as_completed"),
    "How do I compress a file?": ("gzip", "zlib", "bz2", "lzma", "zipfile", "tarfile"),
    "How do I parse a JSON string?": ("json",),
    "How do I draw a random integer?": ("random", "secrets"),
    "How do I make a temporary folder?": ("tempfile",),
    "How do I copy a file?": ("shutil.copy",),
    "Which files match a pattern?": ("glob", "fnmatch", "pathlib"),
    "How do I send an e-mail?": ("smtplib", "email"),
    "How do I compute the hash of some bytes?": ("hashlib", "hmac", "zlib", "hash"),
    "How do I read a table of comma-separated values?": ("csv",),
    "How long does a piece of code take to run?": ("timeit", "time.", "cProfile", "profile"),
    "How do I read options from the command line?": ("argparse", "optparse", "getopt"),
    "How do I wrap a long paragraph into lines?": ("textwrap",),
    "How do I unpack an archive?": ("zipfile", "shutil.unpack", "tarfile"),
    "What is the greatest common divisor of two numbers?": ("math.gcd",),
    "How do I parse an XML document?": ("xml",),
    "How do I escape characters in HTML?": ("html",),
    "How do I run another program and read its output?": ("subprocess",),
    "How do I turn a string into a date?": ("datetime", "time.strptime", "calendar", "email.utils"),
    "How do I print nested data so that people can read it?": ("pprint",),
}


def main() -> None:
    """Search with each model, print one line a way of searching."""
    entries = demo_entries()
    documents = [entry.document for entry in entries]
    for model in sys.argv[1:] or [DEFAULT]:
        encoder = Encoder.load(model)
        for instruction in (QUERY_INSTRUCTION, ""):
            for standardised in (False, True):
                search = TextSearch(encoder, documents, instruction=instruction, standardised=standardised)
                ranks = [rank(search, entries, *question) for question in QUESTIONS.items()]
                counts = [sum(place <= depth for place in ranks) for depth in (1, 3, 5)]
                first = [place if place <= 5 else "-" for place in ranks[:5]]
                way = ("instruction" if instruction else "no instruction", "standardised" if standardised else "as is")
                print(
                    f"{model:24} {', '.join(way):30} in the first 1, 3, 5: {counts}  the demonstration's: {first}",
                    flush=True,
                )


def rank(search: TextSearch, entries: list, question: str, names: tuple[str, ...]) -> int:  # type: ignore[type-arg]
    """Return the place of the first right answer, 99 if there is none among the first five."""
    for place, (_, position) in enumerate(search.find(question, 5), start=1):
        if entries[position].name.startswith(names):
            return place
    return 99


if __name__ == "__main__":
    main()
