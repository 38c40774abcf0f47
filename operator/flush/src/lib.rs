//! Flush scheduling: scrape, policy, dispatch.
