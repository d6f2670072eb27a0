//! Cells of CSV files.

/// Returns a row of CSV (RFC 4180).
pub(in crate::web::console) fn row(cells: &[String]) -> String {
    let cells: Vec<_> = cells.iter().map(|cell| quoted(cell)).collect();
    format!("{}\r\n", cells.join(","))
}

/// Quotes a cell (RFC 4180 §2). Spreadsheets execute formulas, so text that looks like one gets a leading apostrophe.
fn quoted(cell: &str) -> String {
    let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let text = if formula { format!("'{cell}") } else { cell.to_owned() };
    if text.contains(['"', ',', '\r', '\n']) || formula { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_formulas_are_escaped() {
        let row = row(&["plain".to_owned(), "a,b".to_owned(), "say \"hi\"\n".to_owned()]);
        assert_eq!(row, "plain,\"a,b\",\"say \"\"hi\"\"\n\"\r\n");
        for formula in ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1"] {
            assert!(quoted(formula).starts_with("\"'"), "{formula:?}");
        }
    }
}
