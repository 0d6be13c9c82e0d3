"""Losing and regaining members of a run. In the trainer; `membership` also is the coordinator process."""
