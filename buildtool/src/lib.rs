//! Turns a Dockerfile into layer tarballs and an image.
