"""Upload: the door artifacts come in by (`POST /legacy/`, what twine, uv, poetry, hatch and flit speak).

Law: what is accepted here is committed publicly before anyone can install it, and what is refused leaves nothing:
no row, no blob, no leaf. The file itself is believed, never the form about it. A file name belongs to its first
bytes for ever; the same bytes may come again at any time and never make a second entry. An upload is answered
with success only when it is durable. A signed statement may come ahead of its file: judged like an attached one, when
it comes and again with the bytes in hand.
"""
