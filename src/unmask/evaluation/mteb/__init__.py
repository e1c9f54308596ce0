"""MTEB, the field's benchmark: our encoders under mteb's protocol, its tasks run, its results read.

``mteb`` itself takes seconds to import; nothing here imports it before it is used.
"""
