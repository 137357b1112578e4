//! One identity for one file, however it is spelled: `x`, `./x`, `sub/../x`, an absolute path, or a
//! path through a symbolic link.

use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;
use std::{env, fs, iter};

/// Free of symbolic links, as the system gives it.
static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| env::current_dir().unwrap_or_default());

/// Where a file is: a path without `.`, `..` and linked directories, relative if it is below the
/// build's own directory. The last name may be that of a link, which a target can replace.
///
/// Directories that do not exist yet will be plain ones.
pub fn identity(path: &Path) -> String {
    let mut at = DIRECTORY.clone();
    for part in path.components() {
        match part {
            Component::Prefix(_) | Component::CurDir => {}
            Component::RootDir => at = PathBuf::from("/"),
            Component::ParentDir => {
                at = real(&at);
                at.pop();
            }
            Component::Normal(name) => at.push(name),
        }
    }
    if let (Some(directory), Some(name)) = (at.parent(), at.file_name()) {
        at = real(directory).join(name);
    }
    let below = at.strip_prefix(&*DIRECTORY);
    below.unwrap_or(&at).display().to_string()
}

/// The identity of a file and, if it is a symbolic link, of each file that it leads to.
pub fn identities(file: &str) -> impl Iterator<Item = String> {
    let next = |link: &String| {
        let to = fs::read_link(link).ok()?;
        Some(identity(&Path::new(link).with_file_name("").join(to)))
    };
    // No more than the system follows; links may form a circle.
    iter::successors(Some(identity(Path::new(file))), next).take(40)
}

/// Whether this is one of pbuild's own files, which it changes and removes as it likes.
pub fn is_own(file: &str) -> bool {
    let name = Path::new(file).file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".pbuild.")
}

fn real(directory: &Path) -> PathBuf {
    fs::canonicalize(directory).unwrap_or_else(|_| match directory.file_name() {
        Some(name) => directory.parent().map(real).unwrap_or_default().join(name),
        None => directory.to_owned(),
    })
}

/// `./src//a.c` is shown as `src/a.c`.
pub fn plain(path: &str) -> String {
    let parts = Path::new(path).components();
    let parts = parts.filter(|part| *part != Component::CurDir);
    parts.collect::<PathBuf>().display().to_string()
}
