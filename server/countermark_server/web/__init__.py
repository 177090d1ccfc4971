"""Pages for people: the front page, and a help page for every error code and exit code.

Law: a page shows text and links, escaped by the template engine, under a content security policy that allows
no script at all. Nothing here changes state. Every link a program prints (`/h/<code>`) leads to a page that
this registry serves itself, so that help works where the internet does not.
"""
