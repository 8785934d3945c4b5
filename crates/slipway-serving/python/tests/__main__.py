"""Runs the tests and fails when one is skipped: `python -m tests [FOLDER] [--only MODULE | --without MODULE]`.

The tests are those here, or those of another folder.

`--only` and `--without` choose by the modules that a test says it needs, so that several Pythons can share the work.
"""

import argparse
import os
import sys
import unittest


def flat(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from flat(item)
        else:
            yield item


def main():
    parser = argparse.ArgumentParser(prog="python -m tests")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--only", metavar="MODULE", help="only tests that need this module")
    choice.add_argument("--without", metavar="MODULE", help="only tests that do not need this module")
    parser.add_argument("folder", nargs="?", default=os.path.dirname(os.path.abspath(__file__)))
    args = parser.parse_args()
    package = os.path.isfile(os.path.join(args.folder, "__init__.py"))
    top = os.path.dirname(args.folder) if package else args.folder
    found = list(flat(unittest.TestLoader().discover(args.folder, top_level_dir=top)))
    chosen = found
    if args.only or args.without:
        named = args.only or args.without
        needing = [test for test in found if named in getattr(test, "needs", ())]
        if not needing:
            parser.error("no test needs %r" % named)
        chosen = needing if args.only else [test for test in found if test not in needing]
    result = unittest.TextTestRunner(verbosity=1).run(unittest.TestSuite(chosen))
    for test, reason in result.skipped:
        print("SKIPPED: %s: %s" % (test, reason), file=sys.stderr)
    if not result.wasSuccessful() or result.skipped or not result.testsRun:
        return 1
    print("%d tests ran, %d left to another Python" % (result.testsRun, len(found) - len(chosen)))
    return 0


sys.exit(main())
