//! Reconciles against a scenario of the API server.
