//! The policy case by case, and the scheduler against a real HTTP server that speaks the instance's job API.

mod fleet;
mod policy;
