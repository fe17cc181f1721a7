//! `POST /skein/v1/tasks/{id}/exec`: runs a program in a task. The connection is taken over, and
//! carries frames in both directions (`cluster::exec`).

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use cluster::exec::{ExecInput, ExecSpec, WindowSize};
use cluster::frame::Frame;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::control_plane::ExecSession;
use crate::error::ApiError;
use crate::extract::{Control, Id};
use crate::query::BODY_BYTES_MAX;

/// What a client upgrades its connection to.
pub const EXEC_PROTOCOL: &str = "skein-exec";

/// The body, in the words of Docker's `/containers/{id}/exec`; empty means absent.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub(crate) struct ExecBody {
    cmd: Vec<String>,
    env: Vec<String>,
    user: String,
    working_dir: String,
    tty: bool,
    /// Height and width.
    console_size: [u16; 2],
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
}

impl From<ExecBody> for ExecSpec {
    fn from(body: ExecBody) -> Self {
        let given = |text: String| (!text.is_empty()).then_some(text);
        let [rows, columns] = body.console_size;
        ExecSpec {
            argv: body.cmd,
            env: body.env,
            user: given(body.user),
            dir: given(body.working_dir),
            terminal: body.tty.then_some(WindowSize { rows, columns }),
            stdin: body.attach_stdin,
            stdout: body.attach_stdout,
            stderr: body.attach_stderr,
        }
    }
}

/// `POST /skein/v1/tasks/{id}/exec`.
pub(crate) async fn exec(
    State(control): Control,
    id: Id,
    mut request: Request,
) -> Result<Response, ApiError> {
    let asked = request.headers().get(header::UPGRADE);
    let upgrade = asked
        .is_some_and(|protocol| protocol == EXEC_PROTOCOL)
        .then(|| request.extensions_mut().remove::<OnUpgrade>())
        .flatten();
    let upgrade = upgrade.ok_or_else(|| {
        ApiError::new(
            426,
            format!("send the headers Connection: Upgrade, Upgrade: {EXEC_PROTOCOL}"),
        )
    })?;
    let body = to_bytes(request.into_body(), BODY_BYTES_MAX).await;
    let body = body.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let body: ExecBody =
        serde_json::from_slice(&body).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let session = control.exec(&id, body.into()).await?;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => carry(TokioIo::new(connection), session).await,
            Err(error) => tracing::debug!(%error, "take over a connection for a program"),
        }
    });
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static(EXEC_PROTOCOL)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response())
}

/// Carries everything between a program and its client, until either is gone.
async fn carry(connection: TokioIo<Upgraded>, session: ExecSession) {
    let (mut reader, mut writer) = tokio::io::split(connection);
    let ExecSession { input, mut output } = session;
    let up = async {
        let mut received = BytesMut::new();
        loop {
            match Frame::take(&mut received) {
                Ok(Some(frame)) => {
                    let Ok(said) = ExecInput::try_from(frame) else { return };
                    if input.send(said).await.is_err() {
                        // It has ended, and says so.
                        std::future::pending::<()>().await;
                    }
                }
                Ok(None) => match reader.read_buf(&mut received).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                },
                Err(_) => return,
            }
        }
    };
    let down = async {
        while let Some(said) = output.recv().await {
            let Ok(bytes) = Frame::from(said).encode() else { return };
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The client may have gone.
        let _ = writer.shutdown().await;
    };
    // With the program's output, which is dropped then, it ends.
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
