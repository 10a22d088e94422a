//! The page: sections of text, lists, tables and figures, which the template `report.html` lays out.

use askama::Template;

/// The page of a report.
#[derive(Template)]
#[template(path = "report.html")]
pub(crate) struct Page<'a> {
    pub title: &'a str,
    pub version: &'a str,
    pub sections: Vec<Section>,
}

/// A section with a heading; left out if it has no blocks.
pub(crate) struct Section {
    /// Anchor.
    pub id: &'static str,
    pub title: &'static str,
    pub blocks: Vec<Block>,
}

impl Section {
    pub fn new(id: &'static str, title: &'static str) -> Self {
        Self {
            id,
            title,
            blocks: Vec::new(),
        }
    }

    pub fn with(mut self, block: Block) -> Self {
        self.blocks.push(block);
        self
    }

    /// Adds a list with a heading of its own, unless it is empty.
    pub fn with_list(self, title: &'static str, lines: Vec<String>) -> Self {
        match lines.is_empty() {
            true => self,
            false => self.with(Block::List { title, lines }),
        }
    }
}

/// A part of a section.
pub(crate) enum Block {
    Text(String),
    List {
        title: &'static str,
        lines: Vec<String>,
    },
    Table(Table),
    Figure(Figure),
}

/// Drawings, and the table of what they show.
pub(crate) struct Figure {
    pub caption: String,
    /// Whether the drawings keep their size and are scrolled, in place of being scaled.
    pub is_wide: bool,
    pub drawings: Vec<Drawing>,
    pub table: Table,
}

/// An SVG element.
pub(crate) struct Drawing {
    /// Whether it is scrolled in a box of limited height on a screen.
    pub is_tall: bool,
    pub label: String,
    pub svg: String,
}

/// A table whose first column names the rows.
#[derive(Default)]
pub(crate) struct Table {
    pub caption: String,
    /// Whether it stays closed on paper.
    pub is_long: bool,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<String>>,
}

/// A column, aligned on the right if it holds numbers.
pub(crate) struct Column {
    pub name: String,
    pub is_number: bool,
}

impl Table {
    pub fn new(caption: impl Into<String>) -> Self {
        Self {
            caption: caption.into(),
            ..Self::default()
        }
    }

    pub fn with_texts<S: Into<String>>(self, names: impl IntoIterator<Item = S>) -> Self {
        self.with_columns(names, false)
    }

    pub fn with_numbers<S: Into<String>>(self, names: impl IntoIterator<Item = S>) -> Self {
        self.with_columns(names, true)
    }

    fn with_columns<S: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = S>,
        is_number: bool,
    ) -> Self {
        let columns = names.into_iter().map(|name| Column {
            name: name.into(),
            is_number,
        });
        self.columns.extend(columns);
        self
    }

    /// Adds rows with a cell for each column.
    pub fn with_rows(mut self, rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        self.rows.extend(rows);
        self
    }

    /// The name of a row, none where the table has no columns.
    fn name<'a>(&self, row: &'a [String]) -> &'a str {
        row.first().map_or("", |name| name)
    }

    /// The cells behind the name of a row, each with whether it is a number.
    fn cells<'a>(&'a self, row: &'a [String]) -> impl Iterator<Item = (bool, &'a String)> {
        let columns = self.columns.iter().map(|column| column.is_number);
        columns.zip(row).skip(1)
    }
}
