"""The figures: one small function each, in a module with its family. A function without data for it returns None."""
