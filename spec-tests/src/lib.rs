//! Black-box tests of the four programs, and of any OCI runtime.
