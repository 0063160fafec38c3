"""What an archive wants to know of a recording beside the neurons: the animal, the session, the imaging."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from lfjax.errors import require
from lfjax.io.toml import naming, read_toml, require_keys, require_table

SUBJECT = ("subject_id", "species", "sex", "age", "date_of_birth", "description", "genotype", "strain", "weight")
REQUIRED = ("subject_id", "species", "sex")
SESSION = (
    "session_id", "institution", "lab", "experimenter", "keywords", "experiment_description", "notes", "protocol", "surgery",
    "virus", "pharmacology", "related_publications",
)  # fmt: skip
LISTS = ("experimenter", "keywords", "related_publications")
TIMES = {"start": "session_start", "description": "description", "identifier": "identifier"}
IMAGING = ("location", "indicator", "excitation_nm", "emission_nm", "depth_um")
DURATION = r"P(?!$)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+S)?)?"
SPECIES = r"[A-Z][a-z]* [a-z]+( [a-z]+)?|http://purl\.obolibrary\.org/obo/NCBITaxon_\d+"
WEIGHT = r"\d+(\.\d+)? (kg|g|mg|ug|μg|ng|pg)"


def read_session(path: str | Path) -> dict[str, Any]:
    """Read a TOML that describes a recording, as arguments of `write_nwb`: `write_nwb(path, neurons, **read_session(toml))`.

        [subject]                             # the animal; the first three are needed, and age or date_of_birth
        subject_id = "m17"
        species = "Mus musculus"
        sex = "F"                             # M, F, O (other), U (unknown)
        age = "P90D"                          # ISO 8601: 90 days
        description = "Window over visual cortex"

        [session]
        start = 2026-03-04T10:30:00+01:00     # with its time zone
        description = "Visual stimulation"
        institution = "Imperial College London"
        lab = "..."
        experimenter = ["Last, First"]
        keywords = ["light field", "calcium imaging"]

        [imaging]
        location = "VISp"
        indicator = "jGCaMP8f"
        excitation_nm = 488.0
        emission_nm = 515.0
        depth_um = 150.0

    Every table and every key may be missing, except as said. [subject] also takes date_of_birth, genotype, strain, weight
    ("21 g"); [session] also identifier, session_id, experiment_description, notes, protocol, surgery, virus,
    pharmacology, related_publications (["doi:..."]).

    Raises:
        FileError: the file is missing or not TOML, a table or key is unknown (the message lists the known ones), or a value is
            not of its form; the message names file and key.
    """
    with naming(path):
        return _session(read_toml(path, "[subject], [session] and [imaging]"))


def _session(tables: Mapping[str, Any]) -> dict[str, Any]:
    known = {"subject": SUBJECT, "session": (*TIMES, *SESSION), "imaging": IMAGING}
    require_keys("tables", tables, known)
    for table, values in tables.items():
        require_table(table, values)
        require_keys(f"[{table}]", values, known[table])
    session = dict(tables.get("session", {}))
    found: dict[str, Any] = {new: session.pop(old) for old, new in TIMES.items() if old in session}
    for name in ("description", "identifier"):
        require(isinstance(found.get(name, ""), str), name, found.get(name), "text")
    if "session_start" in found:
        check_start(found["session_start"])
    for name, value in tables.get("imaging", {}).items():
        number = name in ("excitation_nm", "emission_nm", "depth_um")
        fits = isinstance(value, (int, float)) and math.isfinite(value) and not isinstance(value, bool)
        require(fits if number else isinstance(value, str), name, value, "a number" if number else "text")
        found[name] = float(value) if number else value
    if "subject" in tables:
        found["subject"] = check_subject(tables["subject"])
    if session:
        found["session"] = check_session(session)
    return found


def check_subject(subject: Mapping[str, Any]) -> dict[str, Any]:
    """The subject as PyNWB takes it, in the form that the archive DANDI requires.

    Raises:
        ParameterError: a key is unknown or missing, or a value is not of its form.
    """
    require_keys("subject", subject, SUBJECT)
    missing = [name for name in REQUIRED if not subject.get(name)]
    missing += [] if subject.get("age") or subject.get("date_of_birth") else ["age or date_of_birth"]
    require(not missing, "subject", dict(subject), f"also {', '.join(missing)}")
    born, made = subject.get("date_of_birth"), dict(subject)
    if born is not None:
        require(isinstance(born, date), "date_of_birth", born, "a date")
        whole = born if isinstance(born, datetime) else datetime(born.year, born.month, born.day, tzinfo=UTC)
        made["date_of_birth"] = whole if whole.tzinfo else whole.replace(tzinfo=UTC)
    for name, value in subject.items():
        require(name == "date_of_birth" or isinstance(value, str), name, value, "text")
    require("/" not in subject["subject_id"], "subject_id", subject["subject_id"], "a name without /")
    require(
        re.fullmatch(SPECIES, subject["species"]) is not None, "species", subject["species"], "its Latin name, Mus musculus"
    )
    worm = subject["species"] == "Caenorhabditis elegans"
    sexes = ("XO", "XX") if worm else ("M", "F", "O", "U")
    require(subject["sex"] in sexes, "sex", subject["sex"], f"one of {', '.join(sexes)}")
    ages = subject["age"].split("/") if subject.get("age") else []
    fits = len(ages) <= 2 and any(ages) == bool(ages) and all(not a or re.fullmatch(DURATION, a) for a in ages)
    require(fits, "age", subject.get("age"), "a duration of ISO 8601, P90D for 90 days, or a range P80D/P90D")
    weight = subject.get("weight")
    require(weight is None or re.fullmatch(WEIGHT, weight) is not None, "weight", weight, "a number and a unit, '21 g'")
    return made


def check_session(session: Mapping[str, Any]) -> dict[str, Any]:
    """The session as PyNWB takes it.

    Raises:
        ParameterError: a key is unknown, or a value is not of its form.
    """
    require_keys("session", session, SESSION)
    made = dict(session)
    for name, value in session.items():
        if name in LISTS:
            several = [value] if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else []
            require(bool(several) and all(isinstance(v, str) and v for v in several), name, value, "texts, one or more")
            made[name] = several
        else:
            require(isinstance(value, str) and value != "", name, value, "text")
    for name in made.get("experimenter", ()):
        require(re.fullmatch(r"[^,]+, [^,]+", name) is not None, "experimenter", name, "'Last, First'")
    require("/" not in made.get("session_id", ""), "session_id", made.get("session_id"), "a name without /")
    return made


def check_start(start: Any) -> datetime:
    """The start of a session: a date and time with a zone, not in the future.

    Raises:
        ParameterError: it is something else.
    """
    zone = isinstance(start, datetime) and start.utcoffset() is not None
    require(zone, "session_start", start.isoformat() if isinstance(start, date) else start, "a time with its time zone")
    require(start < datetime.now(UTC) + timedelta(days=1), "session_start", start.isoformat(), "a time that is not to come")
    return start
