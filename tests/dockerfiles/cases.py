"""All cases, by name."""

from __future__ import annotations

from tests.dockerfiles import cases_add, cases_config, cases_copy, cases_run, cases_stages
from tests.dockerfiles.case import Case

CASES: dict[str, Case] = {
    case.name: case
    for module in (cases_run, cases_copy, cases_add, cases_config, cases_stages)
    for case in module.CASES
}
