//! Flush jobs: the five steps from hot to cold, and their settlement after a crash.
