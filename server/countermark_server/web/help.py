"""The help texts: what each code means and what to do, in a few sentences for a person.

One place for two kinds of numbers people meet: error codes of the registry (`/h/signature-missing`) and exit
codes of the programs (`/h/exit-6`, and as a table on every page). A test asserts that no code is left out.
"""

from __future__ import annotations

HELP: dict[str, str] = {
    "not-authenticated": (
        "The request carried no token, or one this registry does not know (any more). Upload with the "
        "user name __token__ and an upload token as password. `countermark login` gives you one."
    ),
    "certificate-needed": (
        "This registry is read with a client certificate of its authority. None came, or the one that came has "
        "expired, was revoked, or is of another authority: the answer says which. `countermark trust add URL "
        "--client-cert FILE` tells our client which to show, `countermark configure` pip, uv, poetry, pdm and twine. "
        "The operator issues certificates."
    ),
    "login-refused": (
        "The one-time code is wrong, was used before, or is older than ten minutes: ask the operator for a new one "
        "(`countermark-server login-code`). Or the identity provider did not sign you in, you are in no group that "
        "may sign in here, or the browser is another than the one that began: run `countermark login` again."
    ),
    "login-pending": (
        "A machine waits to be signed in. Open the address that it shows, sign in at the identity provider, compare "
        "the code, and press the button. The machine asks again by itself, for ten minutes."
    ),
    "session-required": (
        "An upload token can upload, and nothing else: it can never enrol, rotate or revoke a key. Sign "
        "in with `countermark login` and repeat the command."
    ),
    "sign-in-stale": (
        "This act needs no key, so it needs a person who has just signed in: within the last ten minutes. Run "
        "`countermark login` and repeat the command."
    ),
    "token-scope": (
        "This token is good for some projects or actions only, and this is none of them. The answer says what it is "
        "for. `countermark tokens list` shows yours, `countermark tokens make` makes another."
    ),
    "not-owner": (
        "This account is not among the owners of the project. An owner can add it by a logged entry."
    ),
    "form-foreign": (
        "A form of a page came without the value that this browser's own forms carry: another site sent it, or "
        "you signed out or in meanwhile. Nothing was done. Open the page again and send the form from there."
    ),
    "job-token-invalid": (
        "The token that the job brought is of no issuer this registry knows (ci.issuers), is signed by no key "
        "that the issuer has now, or does not say which job it is. The answer says which. Run the job again; its "
        "log of what it asked the CI system for helps."
    ),
    "job-token-expired": (
        "The token of the job is too old, or from the future by more than a minute. Run the job again, and let it "
        "ask for the token right before it uploads; if it did, one of the clocks is wrong."
    ),
    "job-token-reused": (
        "Each token of a job is good for one request, to sign or to upload. GitHub and Buildkite give a new one "
        "each time; on GitLab name two in id_tokens, or let `countermark publish --ci` do both with one. If no "
        "request of yours came first, somebody has your token: look at the entries under your project."
    ),
    "job-audience": (
        "The token was made for another service. The answer names the audience it must have, and /_/oidc/audience "
        "says it, too."
    ),
    "job-pull-request": (
        "Anybody can open a pull request, so a job that one started publishes nothing, whatever ref it runs on. "
        "Publish from a branch or a tag."
    ),
    "job-fork": (
        "The job runs in a fork, or runs a workflow of another repository. Only what an owner of the project has "
        "added publishes."
    ),
    "job-renamed": (
        "A project trusts this repository under another name, or one of this name with another number: it was "
        "renamed, or its name was taken by somebody else. If it is yours, an owner removes the old publisher and "
        "adds the new one: `countermark trusted-publisher remove`, then `add`."
    ),
    "job-unknown-publisher": (
        "No project trusts this job: not its repository, its workflow, or the branch or tag it runs for. An owner "
        "adds it: `countermark trusted-publisher add PROJECT --issuer URL --repository NAME --repository-id "
        "NUMBER --workflow FILE`."
    ),
    "too-many-attempts": "Too many attempts in a short time. Wait a minute, then try again.",
    "bad-request": "The registry did not understand the request. The answer says which part.",
    "not-found": "Nothing is known under this address. Check the spelling of the project and the file name.",
    "not-allowed": "This address exists but does not take this method.",
    "not-acceptable": (
        "The simple index is served as JSON (PEP 691) and as HTML (PEP 503), and this request takes neither."
    ),
    "busy": (
        "More entries wait for the log than this registry lets wait. Nothing of the request was taken: send all "
        "of it again after the seconds that Retry-After names."
    ),
    "log-frozen": (
        "The operator has frozen this registry: its log has had its last entry, or is about to, and no upload, key, "
        "statement or sign-in is taken any more. Reading, installing and verifying go on as before. The operator "
        "says where to publish from now on; a successor's first log entry names this log."
    ),
    "raw-log": (
        "This is a log for load tests (`testing.raw_add`): it takes raw bytes at /log/add and nothing else, for "
        "ever. A registry for packages needs a data directory of its own, without that setting."
    ),
    "too-large": "The file or form is larger than this registry takes. The answer names the limit.",
    "internal": (
        "The registry made an error; your request may be fine. The operator finds it in the telemetry. "
        "An upload may be repeated safely: the same bytes never make a second entry."
    ),
    "unavailable": (
        "The registry cannot answer at this moment, for example because its log does not. Try again; an "
        "upload may be repeated safely."
    ),
    "form-invalid": (
        "The upload form lacks a field or holds one twice or with a value that is not allowed. The "
        "answer names the field. twine, uv, poetry, hatch and flit send the right form."
    ),
    "name-invalid": (
        "Project names are letters, digits, dots, dashes and underscores, and begin and end with a "
        "letter or digit."
    ),
    "name-confusable": (
        "The name of this new project reads like that of a project of somebody else, or like a module of Python, "
        "once dashes are left out and l, i, 1 and o, 0 and rn, m and vv, w are one. Choose another name, or ask an "
        "owner of the other project to begin it. The operator may allow such names (limits.confusable_names)."
    ),
    "name-granted": (
        "Names like this are an organisation's, and only its people begin projects so; the answer says which "
        "organisation and which pattern. Ask one of its owners for a team that maintains the name, or take another "
        "name. Nothing was stored."
    ),
    "release-closed": (
        "The first file of this release is older than the days in which a release takes further files "
        "(limits.release_open_days). Late files in old releases are how taken-over accounts reach people who pinned "
        "a version. Make a new version."
    ),
    "quota-bytes": (
        "The files of this project, or all that this account has uploaded, may have so many bytes in all. The "
        "answer says how many there are. The operator can raise the bound (limits.project_bytes, "
        "limits.account_bytes). Removing a file gives nothing back: its bytes stay as evidence."
    ),
    "quota-day": (
        "An account may cause so many entries, and begin so many projects, within one day (UTC). Retry-After says "
        "when the next day begins. The operator can raise the bound ([limits])."
    ),
    "filename-invalid": (
        "The file name must be that of a wheel (.whl) or a source distribution (.tar.gz, .zip) of this "
        "project and version. Names in the log are public for ever."
    ),
    "digest-mismatch": (
        "A digest in the form is not the digest of the bytes that arrived: the file was damaged or "
        "changed on its way. Nothing was stored. Upload it again."
    ),
    "file-exists": (
        "Other bytes have this file name. A file name belongs to its first bytes for ever, also after "
        "they were removed; make a new version. The same bytes may be uploaded again at any time."
    ),
    "filename-spent": (
        "A file of this name was rejected or removed. Its name stays spent; make a new version."
    ),
    "metadata-invalid": (
        "The METADATA or PKG-INFO inside the file is missing, twice there, or does not parse. The "
        "registry believes the file, not the form."
    ),
    "metadata-mismatch": (
        "Name or version differ between the form, the file name and the metadata inside the file. Build "
        "the file again and upload what the build made."
    ),
    "archive-malformed": "The archive is truncated, damaged or not of the kind its name says.",
    "archive-ambiguous": (
        "Two programs would see different contents in this archive (hidden bytes, doubled names, headers "
        "that disagree). Build it again with a current build tool."
    ),
    "archive-path": (
        "A member's name would be written outside the directory it is unpacked to, or collides with "
        "another one on some systems."
    ),
    "archive-link": (
        "A link in the archive leads outside it or through another link; wheels hold no links at all."
    ),
    "archive-budget": "The archive has too many members, or unpacks to far more than its size.",
    "archive-layout": (
        "A wheel holds METADATA, WHEEL and RECORD in one .dist-info directory; a source distribution "
        "holds one top directory with PKG-INFO in it."
    ),
    "record-mismatch": "RECORD must name every file of the wheel with its SHA-256, and nothing else.",
    "statement-invalid": (
        "The statement that came with the file does not parse or holds members that are not known. Make "
        "it with `countermark sign`."
    ),
    "statement-mismatch": (
        "The signed statement, attached or submitted ahead, speaks of another file, project, version or registry "
        "than the upload. Sign the file you upload: `countermark sign dist/*`, with --submit where it went ahead."
    ),
    "signature-missing": (
        "This project has signed before, so every further file needs a signature by one of its keys: a "
        "stolen upload token alone must not suffice. Run `countermark sign --submit dist/*` and upload "
        "again with any tool, or upload with the attestations that `countermark sign dist/*` writes beside the "
        "files, or use `countermark publish dist/*`. A statement that was submitted ahead waits 24 hours."
    ),
    "statements-waiting": (
        "Statements that were submitted ahead of their files (`countermark sign --submit`) wait 24 hours, and "
        "so many of one account or project at most. Upload the files they are about, or wait until they expire."
    ),
    "signature-invalid": (
        "The signature does not verify with the key it names: the file, the statement or the signature "
        "was changed. Sign again with `countermark sign`."
    ),
    "key-unknown": (
        "The key that signed is not enrolled for this project. Sign in with "
        "`countermark login`; then `countermark sign` or `countermark publish` offers to enrol it."
    ),
    "signature-count": "A publish statement has exactly one signature. Sign again with `countermark sign`.",
    "key-expired": "The key that signed was valid for a limited time, which is over. Enrol a new one, signed in.",
    "key-revoked": "The key that signed was revoked, by an entry in the public log. Sign with another key.",
    "key-pending": (
        "A key enrolled without an older one's signature takes effect after seven days, in which an older "
        "key may veto it. Wait, or sign with an older key."
    ),
    "key-exists": "This key is enrolled for this project. There is nothing left to do.",
    "key-taken": "This key is enrolled in the name of another account. Make your own: `countermark key new`.",
    "not-authorised": (
        "A project that has keys takes a further one only with the signatures of as many enrolled keys as "
        "it demands. Ask their holders to sign the enrolment."
    ),
    "recovery-pending": "A key is being recovered for this project. Its keys do not change until that has ended.",
    "project-frozen": (
        "A veto against a recovery has frozen the project for both sides, until two moderators have decided."
    ),
    "prev-stale": (
        "Since this statement was signed, another entry about the same project or file has entered the log. "
        "Sign again, so that it follows the newest one."
    ),
    "entry-refused": (
        "What you asked for breaks a rule of the log. The answer names the rule. Nothing was stored."
    ),
    "not-listed": (
        "The file is in the log but not listed yet: it waits for the scan or for the next TUF timestamp. "
        "`countermark status` says which."
    ),
    "file-held": "The file is held until a person has looked at it. The hold is an entry in the public log.",
    "file-removed": (
        "The file was removed by its owner or by a moderator. The decision is an entry in the public "
        "log; the file name stays spent."
    ),
    "proof-invalid": (
        "The registry cannot prove this file from its own public log. That must not happen: tell the "
        "operator, and do not install the file."
    ),
}

EXIT_CODES: dict[int, tuple[str, str]] = {
    0: (
        "allowed by policy",
        "The field `verified` says whether it was proved or only warned about.",
    ),
    1: (
        "a bug of ours",
        "Please report what you did.",
    ),
    2: (
        "wrong usage",
        "A wrong argument or a missing file. Nothing was judged.",
    ),
    3: (
        "cannot reach",
        "The registry could not be reached or could not answer. Try again.",
    ),
    4: (
        "too old to judge",
        "Metadata expired or witnesses stopped. The message says who is late.",
    ),
    5: (
        "refused by policy",
        "Nothing is forged, but it is unsigned, by another identity, not in the log, or no trust is set "
        "up for this registry.",
    ),
    6: (
        "withdrawn or held",
        "The file is in the log, and so is the decision to withdraw or hold it.",
    ),
    7: (
        "evidence false",
        "Bytes, listing or metadata contradict the log. Do not install. The evidence was written to a "
        "file; keep it.",
    ),
}
