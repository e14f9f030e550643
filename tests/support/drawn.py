"""A face, drawn with a dozen ellipses, that OpenCV's cascade finds; and files that show it."""

import struct
import zlib
from fractions import Fraction

import av
import cv2
import numpy as np


def face(x, y, height, shape=(240, 320), mouth=0.0, wall=(110, 130, 150)):
    """An image, (*shape, 3) uint8 RGB, with one face.

    Its brows are 0.14 `height` above (x, y), its chin 0.56 below, its cheeks 0.36 to each side.
    """
    image = np.full((*shape, 3), wall, np.uint8)

    def ellipse(u, v, a, b, colour):
        centre, axes = (
            (round(x + u * height), round(y + v * height)),
            (max(1, round(a * height)), max(1, round(b * height))),
        )
        cv2.ellipse(image, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA)

    ellipse(0, 0.02, 0.40, 0.55, (70, 50, 40))  # hair
    ellipse(0, 0.08, 0.36, 0.48, (205, 170, 145))
    for side in (-0.16, 0.16):
        ellipse(side, -0.03, 0.085, 0.055, (150, 110, 95))  # eye
        ellipse(side, -0.02, 0.07, 0.035, (60, 40, 40))
        ellipse(side, -0.11, 0.10, 0.025, (60, 40, 30))  # brow
    ellipse(0, 0.10, 0.05, 0.13, (225, 190, 165))  # nose
    ellipse(0, 0.20, 0.07, 0.025, (150, 105, 90))
    ellipse(0, 0.34, 0.13, 0.035 + 0.05 * mouth, (130, 60, 60))
    return cv2.GaussianBlur(image, (0, 0), max(0.8, 0.012 * height))


def video(path, images, codec="mp4v", fps=25):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (width, height))
    for image in images:
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def film(
    path, images, codec="h264", fps=25, *, form=None, times=None, pixels=None, turned=0, **options
):
    """A video as people have it, which OpenCV cannot write.

    Args:
      images: uint8 RGB, all of one size.
      codec: as FFmpeg calls its encoder.
      fps: frames per second of the header.
      form: of the file, as FFmpeg calls it; by default the suffix says it.
      times: of the frames, in milliseconds; by default they follow `fps`.
      pixels: width : height of a pixel.
      turned: degrees, counterclockwise, by which a player turns the picture.
      options: of the file, such as movflags="faststart".
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.bit_rate = 4_000_000
        if pixels:
            stream.codec_context.sample_aspect_ratio = pixels
        stream.codec_context.thread_count = 1
        if turned:
            stream.set_display_rotation(turned)
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def jpeg(image):
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def image_folder(folder, images, name="img{}.jpg"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images, 1):
        (folder / name.format(number)).write_bytes(jpeg(image))
    return folder


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG file whose header claims that size, and that holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
