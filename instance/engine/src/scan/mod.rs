//! DataFusion's view of a table: cold files minus deletion vectors minus masks, plus hot rows above `flushed_through`.
