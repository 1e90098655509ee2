// ReDoc's credit would load a logo from its maker's host, which the page's policy blocks with an error.
{
  const images = HTMLImageElement.prototype;
  const { setAttribute } = images;
  images.setAttribute = function (name, value) {
    const isForeign = name === "src" && new URL(value, document.baseURI).host === "cdn.redoc.ly";
    if (!isForeign) setAttribute.call(this, name, value);
  };
  const { get } = Object.getOwnPropertyDescriptor(images, "src");
  const set = function (value) {
    this.setAttribute("src", value);
  };
  Object.defineProperty(images, "src", { get, set });
}
