//! Kubernetes objects of a KalamDB, as pure functions.
