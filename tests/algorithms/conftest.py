"""Property tests here draw the same examples every time and are not timed: other work may share the cores."""

from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
