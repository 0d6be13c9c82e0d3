"""What a page needs to answer in the browser: data, vendored plotting code. Runs in the command line's process."""
