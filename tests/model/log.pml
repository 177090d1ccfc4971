/* The log on small bounds: two sequencers that both believe to be the only one, a publisher in each, a witness that
 * remembers, and an operator who restores the database, the store or both from an older copy.
 *
 * Every option of `Machine` is a step of server/countermark_server/log; the process may die, or another thread or
 * machine may run, before and after it. `did(STEP)` names what is durable, or leaves the machine, in it; steps.py
 * reads this file, and test_code.py holds the code to the same order.
 *
 * What must hold whatever happens:
 *   one root per size        all that ever left a machine lies in one history              (expose)
 *   tiles before witnesses   what a witness is shown can be read by everybody              (ask)
 *   public behind head       what is published is a prefix of what the head row holds      (PUBLISH, sound)
 *   acknowledged: included   who was told an index finds the entry there, for ever         (tell)
 *   rules in index order     the rules' state has seen exactly the log's entries, in order (sound)
 *   nothing lost             the bytes of the newest tree are in the tiles or in staging   (sound)
 *   no idle refusal          a start is refused only when something was restored           (refuse)
 *   no dead end              when nothing more can happen, all proposals were told         (Quiet)
 *
 * A tree is a number: each entry is one octal digit, the first entry the highest. Proposals are 1, 2, 3 ...; so two
 * trees of one size are equal exactly when their entries are, which is what a root hash promises.
 * Bounds come from the environment (test_model.py says which), and so does a planted fault.
 */
#define SIZES 6
#define CUT(r, s, k) ((r) >> (3 * ((s) - (k))))         /* the tree of the first k entries of tree r of size s */
#define ENTRY(r, s, i) (CUT(r, s, (i) + 1) & 7)
#define STAGED(s, r) (store.bundle[2 * (s)] == (r) || store.bundle[2 * (s) + 1] == (r))
#define did(step) skip

/* Faults that a test plants, to see that a property finds each. */
#define PUBLISHES_BEFORE_SWAP 1    /* the witness and the public see the signature before the head row has it */
#define SWAPS_WITHOUT_FENCE 2      /* the head row is set, not compared */
#define ASKS_BEFORE_TILES 3        /* the publisher is told of the checkpoint before its tiles are written */
#define STARTS_UNCHECKED 4         /* neither public checkpoint nor witness are asked at the start */
#define APPLIES_BEFORE_SWAP 5      /* tiles are written before the head row names their tree */
#define DROPS_BEFORE_TILES 6       /* staging is dropped once the head is swapped */
#define TELLS_BEFORE_PUBLISHING 7  /* proposers hear of their index when the witness has cosigned */
#define RULES_APART 8              /* the rules' state is another transaction than the head */
#define GOES_ON_AFTER_FAILURE 9    /* after a failed commit the next round starts from what was signed */
#define STAGES_NOTHING 10          /* no bundle is written */
#define WITNESS_FORGETS 11         /* the witness is on the machine that is restored */
#define PUBLISHES_BACKWARDS 12     /* nobody looks at the checkpoint that is replaced */
byte fault, machines, proposals, crashes, restores;     /* set from the environment in init */

/* What a database and a store hold, and what a copy of them holds. A signature is in the row together with its tree. */
typedef Database { byte size; short root; bool staged; short rules; byte pending; byte told };
typedef Store { short bundle[14]; short tile[SIZES]; byte size; short root }    /* size, root: public checkpoint */
typedef Tree { byte size; short root };
Database db, db_copy;
Store store, store_copy;
bool db_copied, store_copied, restored;
Tree witness;
byte lock;                                              /* who holds the head row, until its transaction ends */
byte made;                                              /* proposals that were ever made, a bit each */
byte down = 2;                                          /* machines that do not run */

/* Memory of the world: nobody in the model reads it but the assertions. */
Tree sent, seen, published;                             /* the largest that left a machine, arrived, was public */
byte promised[8];                                       /* index + 1 that a proposer was told */

mtype = { DOWN, REFUSED, HEAD, READABLE, COMPARED, WITNESSED, SETTLED, IDLE, HELD, BUNDLED, SWAPPED,
          COMMITTED, QUIET, TAKEN, COSIGNED, PUBLIC, TOLD, YES, NO, AHEAD };

inline expose(s, r, by) {                               /* a signature reaches somebody: `by` has seen it */
    if
    :: s >= by.size -> assert(CUT(r, s, by.size) == by.root); by.size = s; by.root = r
    :: else -> assert(CUT(by.root, by.size, s) == r)
    fi
}

inline send(s, r) {                                     /* it leaves the machine: after a restore nobody knows what */
    if                                                  /* was sent and got lost, so only what arrived counts */
    :: !restored -> expose(s, r, sent)
    :: else
    fi
}

inline ask(s, r, answer) {                              /* add-checkpoint; an answer may be lost either way */
    assert(s == 0 || store.tile[s] == r);
    send(s, r);
    if
    :: answer = NO
    :: true -> expose(s, r, seen);                      /* `true`: else the `else` in there would compete with NO */
        if
        :: witness.size > s || CUT(r, s, witness.size) != witness.root -> answer = AHEAD
        :: else -> witness.size = s; witness.root = r; if :: answer = YES :: answer = NO fi
        fi
    fi
}

inline tell(limit) {                                    /* settle(): proposers hear, the bundle is not needed */
    i = 0;
    do
    :: i < limit && i < db.size ->
        p = ENTRY(db.root, db.size, i);
        if
        :: !(db.told & (1 << p)) ->
            db.told = db.told | (1 << p);
            assert(i < published.size && ENTRY(published.root, published.size, i) == p);
            assert(promised[p] == 0 || promised[p] == i + 1);
            promised[p] = i + 1
        :: else
        fi;
        i++
    :: else -> break
    od;
    db.staged = db.staged && db.size > limit;
    i = 0; p = 0
}

inline drop(from, to) {                                 /* bundles of the sizes [from, to) */
    i = from;
    do
    :: i < to -> store.bundle[2 * i] = 0; store.bundle[2 * i + 1] = 0; i++
    :: else -> i = 0; break
    od
}

inline apply(s, r, then, otherwise) {                   /* a name is written once: other bytes are a conflict */
    if
    :: store.tile[s] == 0 || store.tile[s] == r -> store.tile[s] = r; at = then
    :: else -> at = otherwise
    fi
}

inline sound() {
    assert(db.rules == db.root);
    assert(restored || db.size == 0 || store.tile[db.size] == db.root || db.staged && STAGED(db.size, db.root));
    assert(restored || store.size <= db.size && CUT(db.root, db.size, store.size) == store.root)
}

inline forget() {                                       /* the process is gone, and all that it only remembered */
    lock = (lock == me -> 0 : lock);
    size = 0; root = 0; staged = false; new_size = 0; new_root = 0; running = false; answer = 0;
    offered_size = 0; offered_root = 0; taken_size = 0; taken_root = 0; done = 0; limit = 0;
    publisher = QUIET; down++
}

/* A start that is refused changes nothing. If the other machine moved the head meanwhile, the next start sees it. */
inline refuse() {
    assert(restored || db.size != size || db.root != root || db.staged != staged);
    at = ((db.size != size || db.staged != staged) -> DOWN : REFUSED);
    forget()
}

inline offer(s, r) { offered_size = s; offered_root = r }

proctype Machine(byte me) {
    mtype at = DOWN, publisher = QUIET, answer;
    byte size, new_size, offered_size, taken_size, done, limit, i, p;
    short root, new_root, offered_root, taken_root;     /* (size, root): the head as this process knows it */
    bool staged, running;                               /* running: the start was checked, this is a reload */
    do
    /* --- load: at the start, and after every failure ------------------------------------------------------- */
    :: atomic { at == DOWN && lock == 0 -> did(LOAD);
        size = db.size; root = db.root; staged = db.staged; down = (running -> down : down - 1);
        drop(size + 1, SIZES);                          /* nobody's round is under way: these never happened */
        if :: staged -> at = HEAD :: !staged -> at = READABLE fi;
        sound() }
    :: atomic { at == HEAD -> did(APPLY);
        if
        :: STAGED(size, root) -> apply(size, root, READABLE, REFUSED)
        :: else -> at = REFUSED
        fi;
        if :: at == REFUSED && running -> at = DOWN :: at == REFUSED && !running -> refuse() :: else fi; sound() }
    :: atomic { at == READABLE && running && (size == 0 || store.tile[size] == root) ->
        offer(size, root); at = IDLE }
    :: atomic { at == READABLE && running && size > 0 && store.tile[size] != root -> at = DOWN }

    /* --- the start check: does anybody know more than the head row? ------------------------------------------ */
    :: atomic { at == READABLE && !running -> did(COMPARE);
        limit = store.size; at = COMPARED;
        if
        :: size > 0 && store.tile[size] != root -> refuse()
        :: fault == STARTS_UNCHECKED && (size == 0 || store.tile[size] == root) -> at = WITNESSED
        :: fault != STARTS_UNCHECKED && (size == 0 || store.tile[size] == root) &&
            (store.size > size || CUT(root, size, store.size) != store.root) -> refuse()
        :: else
        fi }
    :: atomic { at == COMPARED -> did(ASK);
        ask(size, root, answer);
        if
        :: answer == YES -> at = WITNESSED; answer = 0
        :: answer == NO -> at = DOWN; forget()
        :: answer == AHEAD -> refuse()
        fi; sound() }
    :: atomic { at == WITNESSED && limit == 0 -> running = true; offer(size, root); at = IDLE }
    :: atomic { at == WITNESSED && limit > 0 -> did(TELL); tell(limit); at = SETTLED; sound() }
    :: atomic { at == SETTLED -> did(DROP);
        drop(1, limit + 1); limit = 0; running = true; offer(size, root); at = IDLE; sound() }

    /* --- a round ---------------------------------------------------------------------------------------------- */
    :: atomic { at == IDLE && db.pending && lock == 0 -> did(HOLD);
        if
        :: db.size == size && db.root == root || fault == SWAPS_WITHOUT_FENCE ->
            lock = me; new_size = size; new_root = root; i = 1;
            do
            :: i <= proposals && (db.pending & (1 << i)) -> new_size++; new_root = new_root * 8 + i; i++
            :: i <= proposals && !(db.pending & (1 << i)) -> i++
            :: new_size > size -> i = 0; break          /* a batch is full */
            :: i > proposals -> i = 0; break
            od;
            if
            :: fault == RULES_APART -> db.rules = new_root
            :: else
            fi;
            at = HELD
        :: else -> at = DOWN; forget()                  /* somebody moved it: the process ends */
        fi }
    :: atomic { at == HELD -> did(STAGE);
        if
        :: fault != STAGES_NOTHING -> store.bundle[2 * new_size + me - 1] = new_root
        :: else
        fi;
        at = BUNDLED; sound() }
    :: atomic { at == BUNDLED -> did(READ); did(SIGN); did(SWAP);       /* nobody sees these before the commit */
        if
        :: STAGED(new_size, new_root) || fault == STAGES_NOTHING ->
            if
            :: fault == PUBLISHES_BEFORE_SWAP -> send(new_size, new_root)
            :: fault == APPLIES_BEFORE_SWAP -> apply(new_size, new_root, SWAPPED, SWAPPED)
            :: else
            fi;
            at = SWAPPED
        :: else -> at = DOWN; lock = (lock == me -> 0 : lock); new_size = 0; new_root = 0
        fi; sound() }
    :: atomic { at == SWAPPED -> did(COMMIT);
        if
        :: lock == me || fault == SWAPS_WITHOUT_FENCE ->
            db.size = new_size; db.root = new_root; db.rules = new_root; db.staged = true;
            i = 1;
            do
            :: i <= proposals ->
                p = 0;
                do
                :: p < new_size && ENTRY(new_root, new_size, p) == i -> db.pending = db.pending & ~(1 << i); break
                :: p < new_size && ENTRY(new_root, new_size, p) != i -> p++
                :: p >= new_size -> break
                od;
                i++
            :: else -> i = 0; p = 0; break
            od;
            if
            :: at = COMMITTED
            :: at = DOWN; new_size = 0; new_root = 0    /* committed, but the answer was an error */
            fi
        :: else ->                                      /* the server had ended it: the signature is destroyed */
            if
            :: fault == GOES_ON_AFTER_FAILURE -> at = IDLE; size = new_size; root = new_root; offer(size, root)
            :: else -> at = DOWN
            fi;
            new_size = 0; new_root = 0
        fi;
        lock = (lock == me -> 0 : lock);
        if
        :: fault == ASKS_BEFORE_TILES && at == COMMITTED -> offer(new_size, new_root)
        :: fault == DROPS_BEFORE_TILES && at == COMMITTED -> drop(1, new_size + 1)
        :: else
        fi;
        sound() }
    :: atomic { at == COMMITTED -> did(APPLY);
        apply(new_size, new_root, IDLE, DOWN);
        if
        :: at == IDLE -> size = new_size; root = new_root; offer(size, root)
        :: else
        fi;
        new_size = 0; new_root = 0; sound() }

    /* --- the publisher, a thread of the same process ------------------------------------------------------------ */
    :: atomic { publisher == QUIET && running && offered_size > done ->
        taken_size = offered_size; taken_root = offered_root; publisher = TAKEN }
    :: atomic { publisher == TAKEN -> did(ASK);
        ask(taken_size, taken_root, answer);
        if
        :: answer == YES -> publisher = COSIGNED
        :: answer == NO -> publisher = QUIET
        :: answer == AHEAD -> at = DOWN; forget()       /* the process ends; its next start is checked */
        fi;
        answer = 0; sound() }
    :: atomic { publisher == COSIGNED && fault == TELLS_BEFORE_PUBLISHING -> tell(taken_size); publisher = PUBLIC }
    :: atomic { publisher == COSIGNED && fault != TELLS_BEFORE_PUBLISHING -> did(PUBLISH);
        if
        :: store.size <= taken_size || fault == PUBLISHES_BACKWARDS ->
            assert(taken_size <= db.size && CUT(db.root, db.size, taken_size) == taken_root);
            store.size = taken_size; store.root = taken_root;
            assert(store.size >= published.size || restored);
            if
            :: taken_size > published.size -> published.size = taken_size; published.root = taken_root
            :: else
            fi;
            publisher = PUBLIC
        :: else -> at = DOWN; forget()                  /* another sequencer is ahead of us: the process ends */
        fi;
        sound() }
    :: atomic { publisher == PUBLIC -> did(TELL); tell(taken_size); publisher = TOLD; sound() }
    :: atomic { publisher == TOLD -> did(DROP);
        drop(1, taken_size + 1); done = taken_size; taken_size = 0; taken_root = 0; publisher = QUIET; sound() }

    /* --- what happens to a machine --------------------------------------------------------------------------- */
    :: atomic { at != DOWN && at != REFUSED && crashes > 0 -> crashes--; at = DOWN; forget() }
    :: atomic { lock == me -> lock = 0 }                 /* it paused; the database gave its transaction up */
    od
}

proctype Proposers() {
    byte i;                                             /* commits need not come in the order of ids */
    do
    :: atomic { made < (1 << (proposals + 1)) - 2 ->
        i = 1;
        do
        :: i < proposals -> i++
        :: !(made & (1 << i)) -> break
        :: i == proposals && (made & (1 << i)) -> i = 0; break
        od;
        db.pending = db.pending | ((1 << i) & ~1); made = made | ((1 << i) & ~1); i = 0 }
    od
}

#define copy_db(to, from) to.size = from.size; to.root = from.root; to.staged = from.staged; to.rules = from.rules; \
    to.pending = from.pending; to.told = from.told
#define copy_store(to, from) to.size = from.size; to.root = from.root; i = 0; \
    do :: i < 14 -> to.bundle[i] = from.bundle[i]; i++ :: else -> break od; i = 0; \
    do :: i < SIZES -> to.tile[i] = from.tile[i]; i++ :: else -> break od; i = 0

proctype Operator() {                                   /* copies are of any two moments; all is stopped to restore */
    byte i;
    do
    :: atomic { restores > 0 && !db_copied -> copy_db(db_copy, db); db_copied = true }
    :: atomic { restores > 0 && !store_copied -> copy_store(store_copy, store); store_copied = true }
    :: atomic { restores > 0 && db_copied && store_copied && down == 2 ->
        restores--; restored = true;
        if
        :: copy_db(db, db_copy)
        :: copy_store(store, store_copy)
        :: copy_db(db, db_copy); copy_store(store, store_copy);
            if
            :: fault == WITNESS_FORGETS -> witness.size = store.size; witness.root = store.root
            :: else
            fi
        fi }
    od
}

active proctype Quiet() {                               /* no step is left: all that was proposed was told */
    timeout -> assert(restored || db.pending == 0 && db.told == made)
}

init {
    c_code {
        now.fault = atoi(getenv("FAULT")); now.machines = atoi(getenv("MACHINES")); now.proposals = atoi(getenv("PROPOSALS"));
        now.crashes = atoi(getenv("CRASHES")); now.restores = atoi(getenv("RESTORES"));
    };
    atomic {
        run Proposers(); run Operator(); run Machine(1);
        if :: machines == 2 -> run Machine(2) :: else fi
    }
}
