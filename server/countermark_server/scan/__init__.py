"""Scan: looks into every logged artifact, in a sandbox, and says what it saw as a signed, logged verdict.

Law: static analysis only; nothing from an upload is ever run, imported or unpacked to disk. A child process that
holds no key, no token and no database handle examines one artifact, forked for it from a nursery that knows nothing
of any, and counts as hostile once it has read hostile bytes: the parent takes nothing from it but a short list of
findings, checked against a schema. A crash, a limit or silence is a finding that a person looks at
(`analyzer-failed`), never "clean". The absence of findings is called just that; there is no verdict "benign".

A child that a hostile artifact has taken over could hide that artifact's findings. It could not sign, reach a
network or a file, or touch another artifact.
"""
