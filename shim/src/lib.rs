//! Supervises a container: stdio, logs and exit codes.
