"""Holds the algebra of updates, the roles that parts inherit, and the registries in which names are found.

    updates, history, adapter              what a task leaves behind, and what later ones see of it
    roles                                  what a part may be and do; `contract` refuses a class that is none of them
    method, expressions, description       how parts make a method, and methods a composition
    registry, benchmark, plugins           names of methods and benchmarks, and the packages and files they are from
    errors, defaults, plain                what all rooms say alike: errors, sources of defaults, types of plain data

Two of these look as if they belonged higher up. `plugins` stays, for the registry looks a name up in installed
packages and records where it is from. `benchmark` stays, for `data` reads lists of tasks that name a task of a known
benchmark, and stands below `benchmarks`.
"""
