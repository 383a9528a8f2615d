//! Images from files, without a registry.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::Tools;

/// What goes into an image: nothing but these files.
#[derive(Debug)]
pub struct Image {
    pub(super) name: String,
    /// Files with their absolute paths inside.
    files: Vec<(PathBuf, String)>,
    /// Symbolic links, as path and target.
    links: Vec<(String, String)>,
    entrypoint: String,
    user: u32,
}

impl Image {
    /// A program with the libraries that it is linked with, as user 65532.
    pub fn of_program(name: &str, program: &Path) -> Result<Self> {
        let file = program.file_name().context("a program has a name")?.to_string_lossy();
        let inside = format!("/usr/local/bin/{file}");
        let listed = Command::new("ldd").arg(program).output()?;
        let libraries = String::from_utf8_lossy(&listed.stdout).into_owned();
        let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned);
        let mut files: Vec<(PathBuf, String)> = libraries.map(|path| (path.clone().into(), path)).collect();
        files.push((program.to_owned(), inside.clone()));
        Ok(Self { name: name.to_owned(), files, links: Vec::new(), entrypoint: inside, user: 65_532 })
    }

    /// The first process of every pod.
    pub(super) fn pause(tools: &Tools) -> Result<Self> {
        Self::of_program(super::lab::PAUSE, &tools.node_program("kube-pause").context("there is no kube-pause here")?)
    }

    /// A shell with wget and nc.
    pub(super) fn shell(tools: &Tools) -> Result<Self> {
        let busybox = tools.node_program("busybox").context("there is no busybox here")?;
        let mut image = Self::of_program(super::lab::SHELL, &busybox)?;
        let names =
            ["sh", "sleep", "nc", "wget", "cat", "ls", "timeout", "httpd", "mkdir", "touch", "rm", "true", "false"];
        image.links = names.map(|name| (format!("/bin/{name}"), "/usr/local/bin/busybox".to_owned())).to_vec();
        "/bin/sh".clone_into(&mut image.entrypoint);
        Ok(image)
    }

    /// Builds it with buildah, as an archive in this directory.
    pub(super) fn build(&self, dir: &Path) -> Result<PathBuf> {
        let context = dir.join(self.name.replace(['/', ':'], "-"));
        for (from, to) in &self.files {
            let to = context.join("root").join(to.trim_start_matches('/'));
            fs::create_dir_all(to.parent().context("a file is in a directory")?)?;
            fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
        for (path, target) in &self.links {
            let path = context.join("root").join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().context("a link is in a directory")?)?;
            std::os::unix::fs::symlink(target, path)?;
        }
        let file = format!("FROM scratch\nCOPY root /\nUSER {}\nENTRYPOINT [{:?}]\n", self.user, self.entrypoint);
        fs::write(context.join("Dockerfile"), file)?;
        let archive = dir.join("image.tar").with_file_name(format!("{}.tar", self.name.replace(['/', ':'], "-")));
        let store = dir.join("buildah");
        let buildah = |args: &[&str]| -> Result<()> {
            let output = Command::new("buildah")
                .arg("--root")
                .arg(store.join("root"))
                .arg("--runroot")
                .arg(store.join("run"))
                .args(["--storage-driver", "vfs"])
                .args(args)
                .output()?;
            ensure!(output.status.success(), "buildah {args:?}: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        };
        let context = context.display().to_string();
        buildah(&["bud", "--isolation", "chroot", "--tag", &self.name, &context])?;
        buildah(&["push", &self.name, &format!("docker-archive:{}:{}", archive.display(), self.name)])?;
        Ok(archive)
    }
}
