"""Validates objects, one JSON line each, strictly against the schemas of Kubernetes 1.29 to 1.37.

A line is {"from": MINOR, "case": TEXT, "object": {...}}: the object must be valid from 1.MINOR on. Custom resources
have no schema there; their kinds are listed below, and any other kind without a schema is an error.
"""

import json
import multiprocessing
import re
import sys

import importlib_resources
import jsonschema
import referencing

OLDEST, NEWEST = 29, 37
CUSTOM = {"HTTPRoute", "JobSet", "PodGroup.scheduling.volcano.sh"}
# Served from this minor on; before, the schema does not know the kind.
FOLDER = importlib_resources.files("kubernetes_validate").joinpath("kubernetes-json-schema")


class Schemas:
    """The strict schemas of one version, each read once."""

    def __init__(self, minor):
        (self.folder,) = [
            entry for entry in FOLDER.iterdir() if re.fullmatch(rf"v1\.{minor}(\.\d+)?-local-strict", entry.name)
        ]
        definitions = json.loads(self.folder.joinpath("_definitions.json").read_text())
        self.definitions = referencing.Resource.from_contents(definitions)
        self.validators = {}

    def validator(self, api_version, kind):
        api = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
        name = f"{kind.lower()}-{api}.json"
        if name not in self.validators:
            file = self.folder.joinpath(name)
            if not file.is_file():
                self.validators[name] = None
            else:
                schema = json.loads(file.read_text())
                resource = referencing.Resource.from_contents(schema)
                registry = self.definitions @ (resource @ referencing.Registry())
                self.validators[name] = jsonschema.Draft202012Validator(schema, registry=registry)
        return self.validators[name]


def check(arguments):
    minor, path = arguments
    schemas, problems, checked = Schemas(minor), [], 0
    with open(path, encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            thing = line["object"]
            kind, api = thing["kind"], thing["apiVersion"]
            group = api.rsplit("/", 1)[0]
            if line["from"] > minor or kind in CUSTOM or f"{kind}.{group}" in CUSTOM:
                continue
            validator = schemas.validator(api, kind)
            if validator is None:
                problems.append(f"1.{minor}: no schema of {api} {kind}")
                continue
            checked += 1
            for error in validator.iter_errors(thing):
                where = ".".join(map(str, error.absolute_path))
                problems.append(f"1.{minor}: {kind} {thing['metadata']['name']}: {where}: {error.message[:300]}\n  {line['case'][:200]}")
    return checked, problems


def main():
    path = sys.argv[1]
    # The script must be able to fail: an unknown field is refused.
    broken = Schemas(NEWEST).validator("v1", "Service")
    if not list(broken.iter_errors({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"prots": []}})):
        sys.exit("the schemas accept an unknown field")
    with multiprocessing.Pool() as pool:
        results = pool.map(check, [(minor, path) for minor in range(OLDEST, NEWEST + 1)], chunksize=1)
    problems = [problem for _, found in results for problem in found]
    for problem in problems[:40]:
        print(problem)
    with open(path, encoding="utf-8") as lines:
        count = sum(1 for _ in lines)
    checked = sum(number for number, _ in results)
    print(f"{count} objects, {checked} validations against 1.{OLDEST} to 1.{NEWEST}, {len(problems)} problems")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
