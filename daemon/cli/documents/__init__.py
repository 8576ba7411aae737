"""The JSON documents that commands print: their fields, and the manual's page about them.

May use all rooms of `daemon`. Not in it: what fills a document; each command does that itself.
"""
