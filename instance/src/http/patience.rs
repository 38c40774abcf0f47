//! Clients that are silent: a request's body whose next piece does not come, and a reply that nobody reads, end after a while. Neither may
//! hold memory, or whoever waits behind it, for as long as it likes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{self, Next};
use axum::serve::{IncomingStream, Listener};
use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep, timeout};

/// Accepts connections whose other side has to read within so much time.
pub struct PatientListener {
    listener: TcpListener,
    patience: Duration,
}

impl PatientListener {
    /// Over that listener.
    pub fn new(listener: TcpListener, patience: Duration) -> Self {
        Self { listener, patience }
    }
}

impl Listener for PatientListener {
    type Io = PatientStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (PatientStream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (PatientStream { stream, patience: self.patience, waiting: None }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The address of the other side.
#[derive(Debug, Clone, Copy)]
pub struct Client(SocketAddr);

impl Connected<IncomingStream<'_, PatientListener>> for Client {
    fn connect_info(stream: IncomingStream<'_, PatientListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// A connection that ends once what is written has not been read for long.
pub struct PatientStream {
    stream: TcpStream,
    patience: Duration,
    /// Runs while there is something to write that the other side does not take.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl PatientStream {
    fn written<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = self.patience;
        ready!(self.waiting.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the reply was not read")))
    }
}

impl AsyncRead for PatientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PatientStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The routes, whose handlers are told the address of the other side.
pub fn with_addresses(router: Router) -> Router {
    router.layer(middleware::from_fn(|mut request: Request, next: Next| {
        if let Some(ConnectInfo(Client(address))) = request.extensions().get::<ConnectInfo<Client>>().copied() {
            request.extensions_mut().insert(ConnectInfo(address));
        }
        next.run(request)
    }))
}

/// The routes, whose requests have to come within so much time from one piece to the next.
pub fn within<S: Clone + Send + Sync + 'static>(router: Router<S>, patience: Duration) -> Router<S> {
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        next.run(request.map(|body| Body::from_stream(in_time(body, patience))))
    }))
}

fn in_time(body: Body, patience: Duration) -> impl Stream<Item = Result<Bytes, io::Error>> {
    futures::stream::unfold(Some(body.into_data_stream()), move |pieces| async move {
        let mut pieces = pieces?;
        match timeout(patience, pieces.next()).await {
            Ok(piece) => piece.map(|piece| (piece.map_err(io::Error::other), Some(pieces))),
            Err(_) => {
                let text = format!("no more came for {} s, and there was no end", patience.as_secs());
                Some((Err(io::Error::new(io::ErrorKind::TimedOut, text)), None))
            }
        }
    })
}
