"""Successors of a simulated registry's trust file: announced in the log, and the steps clients follow.

    chain = TrustChain(world)
    second = chain.announce(chain.with_witness("w2"))     # trust role, `tuf` entry, checkpoint, step, timestamp
    chain.pass_hours(25)                                  # and the registry goes on beating

The overlap is the registry's: from `announce` on, checkpoints carry the lines of both witnesses.
"""

from __future__ import annotations

from dataclasses import replace

from tuf.api.metadata import Metadata, Root

from countermark.tlog import merkle
from countermark.tlog.cosignature import Ed25519CosignatureSigner
from countermark.tlog.proof import TlogProof
from countermark.trustfile import TrustFile
from countermark.trustwalk import TrustStep
from tests.simulator import HOUR, World, signing_key


class TrustChain:
    """Trust files after the first, of one world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def witness(self, name: str) -> Ed25519CosignatureSigner:
        """Another witness, the same in every run."""
        return Ed25519CosignatureSigner(f"witness.test/{name}", signing_key(f"chain {name}"))

    def with_witness(self, *names: str, threshold: int | None = None) -> TrustFile:
        """The next version, with these witnesses in the place of the old ones."""
        current = self.world.trust_file
        logs = [line for line in current.witness_policy.splitlines() if line.startswith("log ")]
        lines = [f"witness {name} {self.witness(name).vkey.format()}" for name in names]
        lines += [f"group all {threshold or len(names)} {' '.join(names)}", "quorum all"]
        policy = "".join(f"{line}\n" for line in [*logs, *lines])
        return replace(current, version=current.version + 1, witness_policy=policy)

    def announce(
        self, trust_file: TrustFile, *witnesses: str, signers: tuple[str, ...] = ("trust",)
    ) -> TrustFile:
        """One publish that changes the trust role; its step is shown once the quorum has seen its entry."""
        world = self.world
        world.also += [self.witness(name) for name in witnesses]
        world.versions["trust"] += 1
        world.sign_trust(trust_file.format(), *signers)
        applied = len(world.entries)
        world.log_tuf_of_snapshot()
        world.sign_checkpoint()
        self.show_step(trust_file.version, index=len(world.entries) - 1)
        world.sign_timestamp(applied=applied)
        world.trust_file = trust_file
        return trust_file

    def show_step(self, version: int, *, index: int, checkpoint: bytes | None = None) -> TrustStep:
        """Serve the step to a version: the proof of entry `index` in the checkpoint there is."""
        world = self.world
        path = merkle.prove_inclusion(index, world.log_size, merkle.reader(world.leaves[: world.log_size]))
        shown = TlogProof(index, path, checkpoint or world.checkpoint)
        role = world.tuf[f"{world.versions['trust']}.trust.json"]
        step = TrustStep(role, world.entries[index], shown.format())
        world.tuf[f"trust/{version}.step.json"] = step.format()
        return step

    def pass_hours(self, hours: int) -> None:
        """Time goes by, and the registry's heart beats."""
        self.world.now += hours * HOUR
        self.world.heartbeat()

    def root_accepts(self, *trust_files: TrustFile) -> None:
        """A new root version that lists these trust files: the emergency path."""
        world = self.world
        newest = max(int(name.split(".")[0]) for name in world.tuf if name.endswith(".root.json"))
        root = Metadata[Root].from_bytes(world.tuf[f"{newest}.root.json"])
        root.signed.version += 1
        root.signed.unrecognized_fields["x-countermark-trust"] = [each.digest for each in trust_files]
        root.signatures.clear()
        for role in ("root-a", "root-b"):
            root.sign(world.keys.tuf[role], append=True)
        world.tuf[f"{newest + 1}.root.json"] = root.to_bytes()
