"""What every process needs: control socket, signals, log, exit codes."""
