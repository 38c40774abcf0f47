//! The few figures that are read from Prometheus text: a sample's value by its name and labels.

/// The value of the first sample of `name` that carries all `labels`, written as `key="value"`.
pub fn sample(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        // The rest begins with the labels or the value, else it is a longer name.
        .filter(|rest| rest.starts_with(['{', ' ']))
        .find(|rest| labels.iter().all(|label| rest.contains(label)))
        .and_then(|rest| rest.rsplit(' ').next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::sample;

    #[test]
    fn a_sample_is_found_by_its_whole_name_and_its_labels() {
        let text = "# TYPE rows gauge\nrows_total{table_name=\"a.b\"} 1\nrows{table_name=\"a.b\"} 7\nrows{table_name=\"a.c\"} 8\n";
        assert_eq!(sample(text, "rows", &["table_name=\"a.c\""]), Some(8.0));
        assert_eq!(sample(text, "rows", &["table_name=\"a.d\""]), None);
    }
}
