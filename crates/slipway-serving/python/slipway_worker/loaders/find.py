"""Files of a model folder, and classes of the user's."""

import glob
import importlib
import os
import sys


def one_file(model_dir, patterns, preferred=()):
    """The one file that matches; a preferred name wins where there are several."""
    found = []
    for pattern in patterns:
        for depth in ("", "*"):
            found += glob.glob(os.path.join(glob.escape(model_dir), depth, pattern))
    found = sorted(set(path for path in found if os.path.isfile(path)))
    if not found:
        raise FileNotFoundError("no %s in %s" % (" or ".join(patterns), model_dir))
    named = [path for path in found if os.path.basename(path) in preferred]
    if len(found) > 1 and len(named) != 1:
        names = ", ".join(os.path.relpath(path, model_dir) for path in found)
        raise ValueError("several files could be the model: %s" % names)
    return named[0] if named else found[0]


def entry_module(name):
    """Imports a module of the user's."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.split(".")[0]:
            raise
        folders = ", ".join(path for path in sys.path[:3] if path)
        raise ModuleNotFoundError("no module %r in %s" % (name, folders), name=name) from None


def entry_object(entry):
    """What `module:Class` names."""
    module, _, name = entry.partition(":")
    if not module or not name:
        raise ValueError("the entry %r must have the form module:Class" % entry)
    found = entry_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            raise AttributeError("the module %r has no %r" % (module, name))
        found = getattr(found, part)
    return found
