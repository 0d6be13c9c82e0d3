"""Our own benchmarks; they write numbers, reports draws them. In the command line, with processes of their own."""
