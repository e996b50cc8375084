// The camera: one frame at a time, when the answers to the one before are there.

const MAX_WIDTH = 1280, QUALITY = 0.9;
const REFUSED = { NotAllowedError: "The browser does not let this page use the camera: allow it beside the address.", NotFoundError: "This device has no camera.", NotReadableError: "Another program uses the camera." };

/** Why there is no camera for this page; empty: there may be one. */
export function noCamera() {
  return navigator.mediaDevices?.getUserMedia ? "" : "Browsers give the camera only to pages of this machine and over TLS.";
}

export class Camera {
  async open() {
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: MAX_WIDTH } } });
    } catch (error) { throw new Error(REFUSED[error.name] || `The camera does not start: ${error.message}`); }
    this.video = document.createElement("video");
    this.video.muted = this.video.playsInline = true;
    this.video.srcObject = this.stream;
    await this.video.play();
    this.canvas = document.createElement("canvas");
  }

  /** Whether it still gives frames: it may be unplugged, or taken back. */
  get isLive() { return this.stream.getVideoTracks().some((track) => track.readyState === "live"); }

  /** What it sees now, as a JPEG. */
  async frame() {
    const { videoWidth, videoHeight } = this.video;
    const scale = Math.min(1, MAX_WIDTH / videoWidth);
    this.canvas.width = Math.round(videoWidth * scale);
    this.canvas.height = Math.round(videoHeight * scale);
    this.canvas.getContext("2d").drawImage(this.video, 0, 0, this.canvas.width, this.canvas.height);
    const blob = await new Promise((resolve) => this.canvas.toBlob(resolve, "image/jpeg", QUALITY));
    return new File([blob], "frame.jpg", { type: "image/jpeg" });
  }

  close() {
    for (const track of this.stream.getTracks()) track.stop();
    this.video.srcObject = null;
  }
}
