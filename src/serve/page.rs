//! The pages, each one file that asks no other host: made of a frame and what all pages share, and of what is its own.

/// Where the parts of a page of its own begin, and where they go.
const PARTS: [&str; 3] = ["<!--top-->", "<!--side-->", "<!--script-->"];

/// A page of its own parts: its markup above the regions and beside them, and its script around what all pages share.
pub(super) fn page_of(own: &str) -> String {
    let mut rest = own;
    let mut next = |mark: &str| {
        let (part, behind) = rest.split_once(mark).unwrap_or((rest, ""));
        rest = behind;
        part
    };
    let [about, top, side] = PARTS.map(&mut next);
    let script = rest.replacen("/*common*/", include_str!("page/common.js"), 1);
    let page = include_str!("page/frame.html")
        .replacen("<html", &format!("{about}<html"), 1)
        .replacen("/*style*/", include_str!("page/style.css"), 1)
        .replacen(PARTS[0], top, 1)
        .replacen(PARTS[1], side, 1)
        .replacen("/*script*/", &script, 1);
    // Indentation is for those who read the source.
    page.lines().map(str::trim_start).filter(|line| !line.is_empty()).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_small_ask_nobody_else_and_make_no_markup_of_texts() {
        for own in [include_str!("page/run.html"), include_str!("page/seeder.html")] {
            let page = page_of(own);
            assert!(page.len() < 60_000, "{} bytes", page.len());
            let elsewhere = page.replace("http://www.w3.org/2000/svg", "");
            for forbidden in ["http:", "https:", "//cdn", "@import", "url("] {
                assert!(!elsewhere.contains(forbidden), "{forbidden}");
            }
            for forbidden in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc"]
            {
                assert!(!page.contains(forbidden), "{forbidden}");
            }
            for mark in PARTS.iter().chain(&["/*style*/", "/*script*/", "/*common*/"]) {
                assert!(!page.contains(mark), "{mark} is left");
            }
            assert!(page.contains("prefers-reduced-motion"));
        }
    }
}
