//! The committer: every change passes here, one at a time, and is durable before it is acknowledged.
