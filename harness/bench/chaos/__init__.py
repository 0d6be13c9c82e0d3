"""`longhaul bench chaos`: runs that are disturbed at random. In the command line's process, over real runners."""
