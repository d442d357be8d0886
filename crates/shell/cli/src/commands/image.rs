//! `image`: what containers are made of.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::shapes::ImageRow;
use api::{Client, path, routes};
use tokio::io::AsyncRead;
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;

use crate::Context;
use crate::connect;
use crate::error::CliError;
use crate::manifest::units::show_bytes;
use crate::out::short;

/// How long the maker of an archive may go on after its upload has ended: it has noticed by then.
const WRITER_TIMEOUT: Duration = Duration::from_secs(2);

/// Load, build or list images
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ImageCommand {
    /// List images, and which nodes hold them
    Ls,
    /// Load a docker-archive or an OCI layout into the answering peer
    Load(LoadArgs),
    /// Build an image of one executable or of a folder
    Build(BuildArgs),
}

/// Load an image
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// An archive (may be compressed), a folder with an OCI layout, or - for standard input
    file: PathBuf,
    /// A name for it [default: the one it brings]
    #[arg(long, value_name = "NAME:TAG")]
    name: Option<String>,
}

/// Build an image
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["binary", "rootfs"])))]
pub(crate) struct BuildArgs {
    /// Its name [default: that of the file or folder]
    #[arg(value_name = "NAME:TAG")]
    image: Option<String>,
    /// The same as an option
    #[arg(long, short = 't', visible_alias = "tag", value_name = "NAME:TAG", conflicts_with = "image")]
    name: Option<String>,
    /// Of this executable and, where it is linked dynamically, the libraries that it needs
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Of this folder as the whole root
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
    /// What a container runs where its deployment does not say: the program and its arguments
    #[arg(long, value_name = "WORD", num_args = 1.., requires = "rootfs")]
    entrypoint: Vec<String>,
}

fn cannot_read(path: &Path, error: &std::io::Error) -> CliError {
    CliError::new("file", format!("{} cannot be read", path.display())).because(error.to_string())
}

/// Bytes that `write` makes in a thread of its own, while they are read. The handle tells how it ended.
fn written_by(
    write: impl FnOnce(&mut dyn Write) -> Result<(), CliError> + Send + 'static,
) -> Result<(Receiver, JoinHandle<Result<(), CliError>>), CliError> {
    let failed =
        |error: std::io::Error| CliError::new("pipe", "the system gave no pipe").because(error.to_string());
    let (reader, writer) = std::io::pipe().map_err(failed)?;
    let receiver = Receiver::from_owned_fd(reader.into()).map_err(failed)?;
    let thread = tokio::task::spawn_blocking(move || {
        let mut writer = std::io::BufWriter::with_capacity(256 * 1024, writer);
        write(&mut writer)?;
        writer.flush().map_err(|error| pipe_broke(&error))
    });
    Ok((receiver, thread))
}

fn pipe_broke(error: &std::io::Error) -> CliError {
    CliError::new("archive", "the archive could not be made").because(error.to_string())
}

/// A folder as a tar archive.
fn archive(dir: &Path, out: &mut dyn Write) -> Result<(), CliError> {
    let mut builder = tar::Builder::new(out);
    builder.follow_symlinks(false);
    builder.append_dir_all(".", dir).and_then(|()| builder.finish()).map_err(|error| pipe_broke(&error))
}

/// Uploads what a thread makes. Where both fail, making it is the cause and uploading the effect.
async fn upload_made(
    client: &Client,
    to: &str,
    write: impl FnOnce(&mut dyn Write) -> Result<(), CliError> + Send + 'static,
) -> Result<Vec<ImageRow>, CliError> {
    let (receiver, thread) = written_by(write)?;
    let uploaded = upload(client, to, receiver).await;
    let made = match tokio::time::timeout(WRITER_TIMEOUT, thread).await {
        Ok(Ok(made)) => made,
        Ok(Err(error)) => {
            Err(CliError::new("archive", "the archive could not be made").because(error.to_string()))
        }
        // Nobody reads what it makes: the upload has ended, and that is what counts.
        Err(_) => Ok(()),
    };
    match (made, uploaded) {
        (Ok(()), uploaded) => uploaded,
        // The peer said no before it had read everything: its words count.
        (Err(_), Err(error)) if error.word != "peer" => Err(error),
        (Err(error), _) => Err(error),
    }
}

async fn build(args: &BuildArgs, context: &Context) -> Result<(), CliError> {
    let failed = |error: &::image::ImageError| CliError::from_error("image", error);
    // Built here, where the libraries of a program and the owners of files are, and sent as an archive.
    let dir = tempfile::Builder::new().prefix("skerry-build-").tempdir().map_err(|error| {
        CliError::new("file", "no temporary folder can be made").because(error.to_string())
    })?;
    let store = ::image::ImageStore::open(dir.path().join("images")).map_err(|error| failed(&error))?;
    let options =
        ::image::BuildOptions { entrypoint: args.entrypoint.clone(), ..::image::BuildOptions::default() };
    let source = args.binary.as_ref().or(args.rootfs.as_ref());
    let name = args.image.clone().or_else(|| args.name.clone()).or_else(|| {
        let file = source?.canonicalize().ok()?.file_name()?.to_str()?.to_lowercase();
        Some(file)
    });
    let Some(name) = name else {
        return Err(CliError::usage("the image needs a name, like web:1"));
    };
    let built = match (&args.binary, &args.rootfs) {
        (Some(binary), _) => {
            let file = binary.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
                CliError::usage(format!("{} has no file name that an image can have", binary.display()))
            })?;
            store.build_binary_path(&name, file, binary, &options)
        }
        (None, Some(rootfs)) => store.build_rootfs(&name, rootfs, &options),
        (None, None) => return Err(CliError::usage("name --binary or --rootfs")),
    }
    .map_err(|error| failed(&error))?;
    for warning in &built.warnings {
        context.out.say(format!("warning: {warning}"))?;
    }
    let client = connect::upload_client(&context.globals)?;
    let reference = built.image.reference.clone();
    let rows = upload_made(&client, routes::IMAGES, move |out| {
        store.save(&reference, out).map_err(|error| CliError::from_error("image", &error))
    })
    .await?;
    list(&rows, context)
}

async fn upload(
    client: &Client,
    to: &str,
    from: impl AsyncRead + Send + Sync + 'static,
) -> Result<Vec<ImageRow>, CliError> {
    Ok(client.upload(to, from).await?)
}

async fn load(args: &LoadArgs, context: &Context) -> Result<(), CliError> {
    let client = connect::upload_client(&context.globals)?;
    let query: Vec<_> = args.name.iter().map(|name| ("name", name.as_str())).collect();
    let to = path(routes::IMAGES, &query);
    let rows = if args.file.as_os_str() == "-" {
        upload(&client, &to, tokio::io::stdin()).await?
    } else if args.file.is_dir() {
        for part in ["oci-layout", "index.json"] {
            let part = args.file.join(part);
            std::fs::metadata(&part).map_err(|error| {
                cannot_read(&part, &error)
                    .hint("a folder to load is an OCI layout; for a root use `skerry image build --rootfs`")
            })?;
        }
        {
            let dir = args.file.clone();
            upload_made(&client, &to, move |out| archive(&dir, out)).await?
        }
    } else {
        let file =
            tokio::fs::File::open(&args.file).await.map_err(|error| cannot_read(&args.file, &error))?;
        upload(&client, &to, file).await?
    };
    list(&rows, context)
}

fn list(rows: &[ImageRow], context: &Context) -> Result<(), CliError> {
    context.out.rows(
        rows,
        |row| row.reference.clone(),
        &[
            ("IMAGE", &|row: &ImageRow| row.reference.clone()),
            ("DIGEST", &|row| short(row.digest.trim_start_matches("sha256:")).to_owned()),
            ("SIZE", &|row| show_bytes(row.size_b)),
            ("NODES", &|row| row.nodes.join(",")),
        ],
    )
}

pub(crate) async fn run(command: &ImageCommand, context: &Context) -> Result<(), CliError> {
    match command {
        ImageCommand::Ls => {
            let client = connect::client(&context.globals)?;
            let rows: Vec<ImageRow> = client.get(routes::IMAGES).await?;
            list(&rows, context)
        }
        ImageCommand::Load(args) => load(args, context).await,
        ImageCommand::Build(args) => build(args, context).await,
    }
}
