"""The log: gives accepted entries their index, makes them public, and never says two things about one size.

Law of this room:

1. One sequencer. It is fenced by the head row (`stores.heads`) and by a lock file; everybody else proposes.
2. What an entry may say is decided by `countermark.rules`, in the order of indexes, in the transaction that
   gives the index. A refused proposal has no index and leaves no leaf.
3. Order of every round (design, section 5), the same in recovery:
   compute -> one staging bundle -> read it back and hash it -> sign -> swap the head -> commit -> apply tiles
   -> cosign -> publish the newest cosigned checkpoint -> tell the waiting -> drop staging.
4. A signature exists in this process's memory and, once the swap committed, in the head row: nowhere else
   before its tiles are public. One whose swap failed is destroyed with its transaction.
5. After anything failed between signing and applied tiles, nothing is sequenced before a clean `load`.
6. `create` is not `load`: only `adopt` begins a log.

Files: `station` runs it; `sequence` is a round, `staging` its bundle, `tree` reads the public tree; `witnesses`
asks for cosignatures, `publish` hands out checkpoints, `cleanup` removes partial tiles; `clockwatch` says whether
the clock can be right; `create` begins a log; `fsck` checks all of it.

Trust: the log's keys and this machine are trusted not to sign two histories, and nothing else depends on
them. Witnesses, timestamper and auditors exist because that trust may be misplaced.
"""
